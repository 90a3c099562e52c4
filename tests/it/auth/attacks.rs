//! Attacks on the step: keys, claims and carriers that were made to be misread. What goes wrong in a signature is in `vectors`.

mod carriers;
mod claims;
mod keys;
mod sessions;
