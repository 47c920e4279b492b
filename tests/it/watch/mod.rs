//! What others look at while a job runs: dashboards, alerts, traces, the image with the program.

mod container;
mod dashboard;
mod program;
mod traces;
