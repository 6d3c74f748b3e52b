//! `#[pelton::sim_test]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, FnArg, Ident, ItemFn, Lit, Result, ReturnType, Token, Type};

const KNOWN: &str = "seeds, faults, partitions, crashes, time_limit_secs, grace_secs, latency_micros, vary, twice, shrink, allow_panics, options";

struct Argument {
    name: Ident,
    value: Expr,
}

impl Parse for Argument {
    fn parse(input: ParseStream<'_>) -> Result<Argument> {
        let name: Ident = input.parse()?;
        if !input.peek(Token![=]) {
            return Err(Error::new(name.span(), format!("`{name}` wants a value: `{name} = …`")));
        }
        input.parse::<Token![=]>()?;
        Ok(Argument { name, value: input.parse()? })
    }
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let arguments = Punctuated::<Argument, Token![,]>::parse_terminated.parse2(arguments)?;
    let function: ItemFn = syn::parse2(item)?;
    check(&function)?;
    let (seeds, options) = settings(&arguments)?;
    let (attributes, visibility) = (&function.attrs, &function.vis);
    let (name, inputs, body) = (&function.sig.ident, &function.sig.inputs, &function.block);
    let name_text = name.to_string().trim_start_matches("r#").to_owned();
    let features = features(std::env::args());
    Ok(quote! {
        #[::core::prelude::v1::test]
        #(#attributes)*
        #visibility fn #name() {
            fn scenario(#inputs) #body
            ::pelton::sim::macro_support::run(
                &::pelton::sim::macro_support::Test {
                    package: ::core::option_env!("CARGO_PKG_NAME"),
                    directory: ::core::option_env!("CARGO_MANIFEST_DIR"),
                    program: ::core::option_env!("CARGO_BIN_NAME"),
                    // Cargo sets it for these alone.
                    integration: ::core::option_env!("CARGO_TARGET_TMPDIR").is_some(),
                    features: #features,
                    module: ::core::module_path!(),
                    name: #name_text,
                },
                #seeds,
                |options: ::pelton::sim::Options| { #options options },
                scenario,
            );
        }
    })
}

/// The signature is `fn(&Sim)`.
fn check(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    let error = |at: &dyn ToTokens, message| Err(Error::new_spanned(at, message));
    if let Some(word) = &signature.asyncness {
        let cure = "this sets a simulation up and must not be `async`: give futures to `sim.host` and `sim.client`";
        return error(word, cure);
    }
    if !signature.generics.params.is_empty() {
        return error(&signature.generics, "a test has no parameters of types or lifetimes");
    }
    let takes_sim = match signature.inputs.iter().collect::<Vec<_>>()[..] {
        [FnArg::Typed(only)] => matches!(&*only.ty, Type::Reference(to) if to.mutability.is_none()),
        _ => false,
    };
    if !takes_sim {
        let message = "this must have one parameter, `sim: &pelton::sim::Sim`";
        return Err(Error::new(signature.span(), message));
    }
    if let ReturnType::Type(..) = &signature.output {
        return error(&signature.output, "this must return nothing: clients return errors");
    }
    Ok(())
}

/// How many seeds, and the statements that change `options`.
fn settings(arguments: &Punctuated<Argument, Token![,]>) -> Result<(u64, TokenStream)> {
    let mut seeds = 100;
    let (mut options, mut last) = (TokenStream::new(), TokenStream::new());
    let mut seen: Vec<String> = Vec::new();
    for Argument { name, value } in arguments {
        let text = name.to_string();
        if seen.contains(&text) {
            return Err(Error::new(name.span(), format!("`{text}` is given twice")));
        }
        options.extend(match &*text {
            "seeds" => {
                seeds = number(name, value)?;
                if seeds == 0 {
                    return Err(Error::new_spanned(
                        value,
                        "no seed would test nothing: at least 1",
                    ));
                }
                TokenStream::new()
            }
            "faults" => faults(value)?,
            "partitions" | "crashes" => {
                let rate = number(name, value)?;
                let Some(rate) = u32::try_from(rate).ok().filter(|rate| *rate <= 1_000_000) else {
                    let message = "a rate is in millionths: at most 1_000_000";
                    return Err(Error::new_spanned(value, message));
                };
                quote!(let options = options.#name(#rate);)
            }
            "time_limit_secs" => duration(&Ident::new("time_limit", name.span()), name, value)?,
            "grace_secs" => duration(&Ident::new("grace", name.span()), name, value)?,
            "latency_micros" => {
                let micros = number(name, value)?;
                quote!(let options = options.latency(::core::time::Duration::from_micros(#micros));)
            }
            "vary" | "twice" | "shrink" | "allow_panics" => {
                let value = truth(name, value)?;
                quote!(let options = options.#name(#value);)
            }
            "options" => {
                last = quote!(let options: ::pelton::sim::Options = (#value)(options););
                TokenStream::new()
            }
            _ => {
                let message = format!("there is no setting `{text}`; there are {KNOWN}");
                return Err(Error::new(name.span(), message));
            }
        });
        seen.push(text);
    }
    options.extend(last);
    Ok((seeds, options))
}

fn number(name: &Ident, value: &Expr) -> Result<u64> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse(),
        _ => Err(Error::new_spanned(value, format!("`{name}` wants a number, such as 100"))),
    }
}

fn truth(name: &Ident, value: &Expr) -> Result<bool> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Bool(truth), .. }) => Ok(truth.value),
        _ => Err(Error::new_spanned(value, format!("`{name}` wants `true` or `false`"))),
    }
}

fn duration(method: &Ident, name: &Ident, value: &Expr) -> Result<TokenStream> {
    let seconds = number(name, value)?;
    Ok(quote!(let options = options.#method(::core::time::Duration::from_secs(#seconds));))
}

fn faults(value: &Expr) -> Result<TokenStream> {
    let which = match value {
        Expr::Lit(ExprLit { lit: Lit::Str(which), .. }) => which.value(),
        _ => String::new(),
    };
    match &*which {
        "swarm" => Ok(TokenStream::new()),
        "harmless" => Ok(quote!(let options = ::pelton::sim::macro_support::harmless(options);)),
        "none" => Ok(quote!(let options = ::pelton::sim::macro_support::none(options);)),
        _ => {
            let message =
                "`faults` is \"swarm\", \"harmless\" or \"none\"; for others give `options = …`";
            Err(Error::new_spanned(value, message))
        }
    }
}

/// The features that the crate is compiled with, from the compiler's own command line, separated by commas:
/// nothing else tells them to a macro. Where it does not either, the printed command goes without.
fn features(arguments: impl Iterator<Item = String>) -> String {
    let features = arguments.filter_map(|word| {
        let name = word.strip_prefix("--cfg=").unwrap_or(&word).strip_prefix("feature=\"")?;
        Some(name.strip_suffix('"')?.to_owned())
    });
    features.filter(|name| name != "default").collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: TokenStream, item: TokenStream) -> std::result::Result<String, String> {
        expand(arguments, item).map(|tokens| tokens.to_string()).map_err(|error| error.to_string())
    }

    fn good() -> TokenStream {
        quote!(
            fn t(sim: &Sim) {}
        )
    }

    #[test]
    fn a_test_is_made_with_its_settings() {
        let text = of(TokenStream::new(), good()).unwrap();
        assert!(text.contains("100u64") && text.contains(r#"name : "t""#), "{text}");
        let arguments = quote!(
            seeds = 7,
            faults = "none",
            partitions = 5_000,
            crashes = 3,
            time_limit_secs = 2,
            grace_secs = 9,
            latency_micros = 11,
            vary = false,
            twice = true,
            shrink = false,
            allow_panics = true,
            options = more,
        );
        let text = of(arguments, good()).unwrap();
        for part in [
            "7u64",
            "macro_support :: none (options)",
            ". partitions (5000u32)",
            ". crashes (3u32)",
            ". time_limit (:: core :: time :: Duration :: from_secs (2u64))",
            ". grace (:: core :: time :: Duration :: from_secs (9u64))",
            ". latency (:: core :: time :: Duration :: from_micros (11u64))",
            ". vary (false)",
            ". shrink (false)",
            ". allow_panics (true)",
            "= (more) (options) ; options",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_wrong_argument_is_an_error_that_says_what_there_is() {
        for (arguments, error) in [
            (quote!(seed = 3), "there is no setting `seed`; there are seeds, faults"),
            (quote!(seeds), "`seeds` wants a value: `seeds = …`"),
            (quote!(seeds = "many"), "`seeds` wants a number, such as 100"),
            (quote!(seeds = -1), "`seeds` wants a number"),
            (quote!(seeds = 0), "no seed would test nothing: at least 1"),
            (quote!(seeds = 1, seeds = 2), "`seeds` is given twice"),
            (quote!(faults = "some"), "`faults` is \"swarm\", \"harmless\" or \"none\""),
            (quote!(faults = none), "`faults` is \"swarm\", \"harmless\" or \"none\""),
            (quote!(partitions = 2_000_000), "a rate is in millionths: at most 1_000_000"),
            (quote!(vary = 1), "`vary` wants `true` or `false`"),
            (quote!(grace_secs = 1.5), "`grace_secs` wants a number"),
        ] {
            let said = of(arguments, good()).unwrap_err();
            assert!(said.contains(error), "{said:?}, not {error:?}");
        }
    }

    #[test]
    fn a_wrong_function_is_an_error_that_says_what_it_must_be() {
        for (item, error) in [
            (
                quote!(
                    async fn t(sim: &Sim) {}
                ),
                "must not be `async`: give futures to `sim.host`",
            ),
            (
                quote!(
                    fn t() {}
                ),
                "one parameter, `sim: &pelton::sim::Sim`",
            ),
            (
                quote!(
                    fn t(sim: Sim) {}
                ),
                "one parameter",
            ),
            (
                quote!(
                    fn t(sim: &mut Sim) {}
                ),
                "one parameter",
            ),
            (
                quote!(
                    fn t(a: &Sim, b: &Sim) {}
                ),
                "one parameter",
            ),
            (
                quote!(
                    fn t<T>(sim: &Sim) {}
                ),
                "no parameters of types",
            ),
            (
                quote!(
                    fn t(sim: &Sim) -> Result<(), ()> {}
                ),
                "must return nothing",
            ),
            (
                quote!(
                    struct T;
                ),
                "expected `fn`",
            ),
        ] {
            let said = of(TokenStream::new(), item).unwrap_err();
            assert!(said.contains(error), "{said:?}, not {error:?}");
        }
    }

    #[test]
    fn features_are_read_from_the_compilers_command_line() {
        let words = [
            "rustc",
            "--cfg",
            "feature=\"sim\"",
            "--cfg",
            "loom",
            "--cfg=feature=\"bytes\"",
            "--cfg",
            "feature=\"default\"",
        ];
        assert_eq!(features(words.into_iter().map(String::from)), "sim,bytes");
        assert_eq!(features(std::iter::empty()), "");
    }
}
