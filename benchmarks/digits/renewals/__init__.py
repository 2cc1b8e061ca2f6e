"""How rarely both gradients may be taken: accuracy and the guarantee of `value_and_dtnh_grad`."""
