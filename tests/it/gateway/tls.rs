//! TLS of real listeners: which certificate, who may come, how sessions resume, how connections end.
//!
//! Not here: single tickets and the choice among certificates (unit tests of `tls`), what scanners find (`tests/tls/scan.sh`).

mod certificates;
mod clients;
mod ends;
mod sessions;
