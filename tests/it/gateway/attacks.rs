//! Attacks on who is asking, through the whole gateway: from other pages, from links, and by size.

mod large;
mod links;
mod pages;
mod replay;
