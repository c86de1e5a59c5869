"""What a whitening loss does to an encoder: results, figures and the page of ``cwrgp-analyze``."""
