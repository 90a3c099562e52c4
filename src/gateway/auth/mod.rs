//! Second step: who is asking.
