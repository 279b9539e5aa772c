"""Numbers about neighborhoods, layers and models, as arrays: what viz draws and the tutorials assert."""
