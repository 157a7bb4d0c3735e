//! The accept loop: what one connection may cost, and how the server stops taking new ones.
