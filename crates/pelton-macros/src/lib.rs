//! `#[pelton::main]` and `#[pelton::test]`. Use them through the `pelton` crate.

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
