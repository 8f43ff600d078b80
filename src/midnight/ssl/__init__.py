"""Self-supervised training: DINOv2 with the KDE regularizer, from tiles to a teacher's weights."""
