//! What elements and keys must be, to be kept and compared.

use std::hash::Hash;

/// An element that a shuffle or an action may keep: it can be copied, and shared by threads. Every such type is one.
pub trait Element: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Element for T {}

/// A key: an [`Element`] that can be hashed and compared. Every such type is one. Equal keys must have equal hashes in every
/// run, so nothing that holds an address or a random number.
pub trait Key: Element + Hash + Eq {}

impl<T: Element + Hash + Eq> Key for T {}
