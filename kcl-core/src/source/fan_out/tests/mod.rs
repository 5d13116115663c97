mod fake;
mod failing;
mod flowing;
