//! Makes `web/dist` exist, so that the crate builds without npm: the page then says how to build it. `make web` fills it.

fn main() {
    // Without the folder, "rerun if changed" would rerun always.
    if let Err(error) = std::fs::create_dir_all("web/dist") {
        println!("cargo::warning=cannot create web/dist: {error}");
    }
    println!("cargo::rerun-if-changed=web/dist");
    println!("cargo::rerun-if-changed=build.rs");
}
