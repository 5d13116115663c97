mod chaos;
mod delivering;
mod ending;
mod reading;
mod world;
