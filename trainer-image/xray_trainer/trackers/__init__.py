"""Who is told how a training goes, beside the operator: TensorBoard's files on the output volume."""
