mod failing;
mod fake;
mod flowing;
