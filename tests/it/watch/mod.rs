//! What others look at while a job runs: dashboards, alerts, the image with the program.

mod container;
mod dashboard;
