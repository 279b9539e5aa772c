"""The page of ``dinat-ref explore``: windows, layers and numbers on a photo, beside Swin and full attention."""
