"""This room holds generators that translate one picture into another: U-Net, ResNet and coarse-to-fine."""
