//! What the fuzz targets run.

pub mod entry;

// Private to the store's crate, and to stay so: compiled into this one too, under the same name. It uses no other module
// of that crate.
#[path = "../../src"]
mod store {
    #[allow(dead_code, reason = "the targets read and write whole items only")]
    pub(crate) mod schema;
}

use store::schema;
