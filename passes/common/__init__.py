"""What several passes share: expressions over scalar programs, per-channel affine folding."""
