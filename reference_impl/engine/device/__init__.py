"""What differs from device to device: how attention and forwards are computed on a CPU or a GPU."""
