//! The worker: builder, loops, supervision, shutdown, snapshot.
