"""Random views of images: one distribution, `ViewSpec`, and three ways to draw from it."""
