"""How good a head is: metrics, cross-validation, fit and measure."""
