"""The theory of trainable Fourier sums as running code: equivalences, spectra, tangent kernels, initialisation."""
