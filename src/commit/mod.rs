//! Results and offsets into the store, in one transaction.
