//! `#[pelton::main]`, `#[pelton::test]` and `#[pelton::sim_test]`. Use them through the `pelton` crate.

mod sim_test;

use proc_macro::TokenStream;
use quote::quote;
use syn::{ItemFn, parse_macro_input};

/// Runs an `async fn main` on a reactor on the main thread.
///
/// ```ignore
/// #[pelton::main]
/// async fn main() {
///     pelton::time::sleep(std::time::Duration::from_millis(1)).await;
/// }
/// ```
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    on_reactor(arguments, item, quote!())
}

/// Runs an `async fn` as a test, on a reactor of its own.
///
/// ```ignore
/// #[pelton::test]
/// async fn one_and_one() {
///     assert_eq!(async { 1 + 1 }.await, 2);
/// }
/// ```
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    on_reactor(arguments, item, quote!(#[::core::prelude::v1::test]))
}

/// Runs a function that sets up a simulation as a test, under many seeds. It needs `pelton`'s feature `sim`.
///
/// ```ignore
/// use pelton::sim::Sim;
///
/// #[pelton::sim_test(seeds = 200, faults = "harmless", partitions = 50_000)]
/// fn no_order_is_lost(sim: &Sim) {
///     sim.host("shop", || async { shop().await });
///     sim.client("buyer", async { buy("shop:80").await });
/// }
/// ```
///
/// Each argument may be left out:
///
/// - `seeds = 100`: how many.
/// - `faults = "swarm"`: each seed picks which there are; `"harmless"`: those that no application should
///   notice; `"none"`.
/// - `partitions = 0`, `crashes = 0`: how often the network is cut, or a host loses power, in millionths for
///   each tenth of a second.
/// - `time_limit_secs = 60`, `grace_secs = 60`: virtual time with faults, and then without.
/// - `latency_micros = 250`: the least time from one host to another.
/// - `vary = true`, `twice = true`, `shrink = true`, `allow_panics = false`: as the methods of
///   `pelton::sim::Options` of these names.
/// - `options = path::to::function`: changes whatever else there is: `fn(Options) -> Options`, called last.
///
/// In the environment `PELTON_SIM_SEED=7` runs that seed alone, and `PELTON_SIM_SEEDS=1000` or
/// `PELTON_SIM_SEEDS=100..200` others than the attribute says. A failure prints the command that makes it
/// happen again.
#[proc_macro_attribute]
pub fn sim_test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    sim_test::expand(arguments.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

fn on_reactor(
    arguments: TokenStream,
    item: TokenStream,
    attribute: proc_macro2::TokenStream,
) -> TokenStream {
    let mut function = parse_macro_input!(item as ItemFn);
    let error = if !arguments.is_empty() {
        Some("this attribute takes no arguments: use `pelton::Builder` for settings")
    } else if function.sig.asyncness.take().is_none() {
        Some("this must be an `async fn`")
    } else if !function.sig.inputs.is_empty() {
        Some("this must have no parameters")
    } else {
        None
    };
    if let Some(message) = error {
        return syn::Error::new_spanned(&function.sig, message).to_compile_error().into();
    }
    let (attributes, visibility) = (&function.attrs, &function.vis);
    let (signature, body) = (&function.sig, &function.block);
    quote! {
        #attribute
        #(#attributes)*
        #visibility #signature {
            ::pelton::block_on(async #body)
        }
    }
    .into()
}
