"""Training data: image-text pairs, cached images, transforms, sampling."""
