"""Networks: backbones (with their stem recorded), heads, the denoiser."""
