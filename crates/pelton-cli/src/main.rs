//! The `pelton` program. What it does is in the library beside it.

fn main() -> std::process::ExitCode {
    pelton_cli::main()
}
