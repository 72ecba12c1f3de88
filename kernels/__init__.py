"""Array kernels: NumPy reference and Numba. Arrays in, arrays out."""
