"""This room compares images in pairs, or with a text each: PSNR, SSIM, LPIPS, distances of features, the CLIP score."""
