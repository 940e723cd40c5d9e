"""Episodes: one cross-CPU call or TLB flush, from the asking CPU's first step to its last."""
