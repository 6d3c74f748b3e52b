pub(crate) const BEHAVIOURS: &[crate::Behaviour] = &[];
