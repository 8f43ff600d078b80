"""Where the tissue is: thumbnails, segmenters, masks, the index that training reads, and its quality page."""
