"""The network: timm's vision transformer with masked and packed tokens, its heads, its weights."""
