//! Pure data: no IO, no clock.
