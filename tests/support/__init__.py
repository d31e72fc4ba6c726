"""What tests share: real servers, real commands, waiting without sleeping blindly."""
