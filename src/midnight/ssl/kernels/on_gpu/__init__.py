"""Triton kernels. Imported only where tensors are on a GPU, or under Triton's interpreter (TRITON_INTERPRET=1)."""
