"""`predict`: what a trained model says of X-rays, decoded and scaled as those that it was trained on."""
