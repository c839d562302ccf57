//! derive(Inputs): a node is a struct whose fields are its inputs. derive(Choice): an enum is a list of words.
//!
//! Both write only data and field moves; whatever can be a function lives in `flow-graph`.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, Field, Fields, LitStr, Result, Token, parse_macro_input,
    punctuated::Punctuated,
};

/// Declares a node from a struct.
///
/// `#[node(category = "…", version = 1, lane = "device", alias("ComfyClass"), loads = "folder", searches("folder"),
/// outputs("a", "b"))]`
/// on the struct; `#[input(default = …, range = a..=b, choices = NAMES, folder = "…", alias("…"), comfy = …)]` on a field.
/// Doc comments are the manual, so a field without one does not compile.
#[proc_macro_derive(Inputs, attributes(node, input))]
pub fn derive_inputs(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    inputs(&item).unwrap_or_else(Error::into_compile_error).into()
}

/// Declares a choice from an enum: each variant is a word, its name in snake case or `#[choice("…")]`.
#[proc_macro_derive(Choice, attributes(choice))]
pub fn derive_choice(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    choice(&item).unwrap_or_else(Error::into_compile_error).into()
}

fn inputs(item: &DeriveInput) -> Result<Tokens> {
    let name = &item.ident;
    let kind = name.to_string();
    let doc = doc_of(&item.attrs);
    if doc.is_empty() {
        return Err(Error::new_spanned(name, "a node needs a doc comment: it is the manual"));
    }
    let mut category = quote!("");
    let mut version = quote!(1);
    let mut lane = quote!(Host);
    let mut aliases = quote!();
    let mut loads = quote!(None);
    let mut outputs = quote!();
    let mut searches = quote!();
    for attr in item.attrs.iter().filter(|attr| attr.path().is_ident("node")) {
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("category") {
                let value: LitStr = meta.value()?.parse()?;
                category = quote!(#value);
            } else if meta.path.is_ident("version") {
                let value: Expr = meta.value()?.parse()?;
                version = quote!(#value);
            } else if meta.path.is_ident("lane") {
                let value: LitStr = meta.value()?.parse()?;
                lane = match value.value().as_str() {
                    "host" => quote!(Host),
                    "device" => quote!(Device),
                    _ => return Err(Error::new_spanned(value, "a lane is \"host\" or \"device\"")),
                };
            } else if meta.path.is_ident("alias") {
                aliases = words(&meta)?;
            } else if meta.path.is_ident("searches") {
                searches = words(&meta)?;
            } else if meta.path.is_ident("outputs") {
                outputs = words(&meta)?;
            } else if meta.path.is_ident("loads") {
                let value: LitStr = meta.value()?.parse()?;
                loads = quote!(Some(#value));
            } else {
                return Err(meta.error("expected category, version, lane, alias, outputs, searches or loads"));
            }
            Ok(())
        })?;
    }
    let fields: Vec<&Field> = match &item.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => fields.named.iter().collect(),
            Fields::Unit => Vec::new(),
            Fields::Unnamed(fields) => return Err(Error::new_spanned(fields, "inputs need names")),
        },
        _ => return Err(Error::new_spanned(name, "a node is a struct")),
    };
    let specs = fields.iter().map(|field| input_spec(field)).collect::<Result<Vec<_>>>()?;
    let takes = fields.iter().map(|field| {
        let (ident, wire) = (&field.ident, wire_name(field));
        quote!(#ident: args.take(#wire)?)
    });
    Ok(quote! {
        impl ::flow_graph::Inputs for #name {
            const KIND: &'static str = #kind;
            const DOC: &'static str = #doc;
            const CATEGORY: &'static str = #category;
            const VERSION: u32 = #version;
            const LANE: ::flow_graph::Lane = ::flow_graph::Lane::#lane;
            const ALIASES: &'static [&'static str] = &[#aliases];
            const LOADS: ::std::option::Option<&'static str> = #loads;
            const SEARCHES: &'static [&'static str] = &[#searches];
            const OUTPUT_NAMES: &'static [&'static str] = &[#outputs];

            fn specs() -> ::std::vec::Vec<::flow_graph::InputSpec> {
                vec![#(#specs),*]
            }

            fn take(args: &mut ::flow_graph::Args) -> ::std::result::Result<Self, ::flow_graph::NodeError> {
                let _ = &args;
                ::std::result::Result::Ok(Self { #(#takes),* })
            }
        }
    })
}

/// The input's name: the field's, without the `r#` of a keyword.
fn wire_name(field: &Field) -> String {
    field
        .ident
        .as_ref()
        .map(|ident| ident.to_string().trim_start_matches("r#").to_owned())
        .unwrap_or_default()
}

fn input_spec(field: &Field) -> Result<Tokens> {
    let (ty, wire, doc) = (&field.ty, wire_name(field), doc_of(&field.attrs));
    if doc.is_empty() {
        return Err(Error::new_spanned(field, "an input needs a doc comment: it is the manual"));
    }
    let mut default = quote!(None);
    let mut comfy = quote!(None);
    let mut aliases = quote!();
    let mut narrow = quote!();
    for attr in field.attrs.iter().filter(|attr| attr.path().is_ident("input")) {
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("default") {
                let value: Expr = meta.value()?.parse()?;
                default = quote!(Some(::flow_graph::Literal::from(#value)));
            } else if meta.path.is_ident("comfy") {
                let value: Expr = meta.value()?.parse()?;
                comfy = quote!(Some(::flow_graph::Literal::from(#value)));
            } else if meta.path.is_ident("alias") {
                aliases = words(&meta)?;
            } else if meta.path.is_ident("range") {
                let value: Expr = meta.value()?.parse()?;
                narrow = quote!(.in_range(#value));
            } else if meta.path.is_ident("choices") {
                let value: Expr = meta.value()?.parse()?;
                narrow = quote!(.one_of(#value));
            } else if meta.path.is_ident("folder") {
                let value: LitStr = meta.value()?.parse()?;
                narrow = quote!(.in_folder(#value));
            } else {
                return Err(meta.error("expected default, range, choices, folder, alias or comfy"));
            }
            Ok(())
        })?;
    }
    Ok(quote! {
        ::flow_graph::InputSpec {
            name: #wire,
            aliases: &[#aliases],
            doc: #doc,
            socket: <#ty as ::flow_graph::node::Field>::socket()#narrow,
            default: #default,
            comfy_default: #comfy,
            optional: <#ty as ::flow_graph::node::Field>::OPTIONAL,
        }
    })
}

fn words(meta: &syn::meta::ParseNestedMeta) -> Result<Tokens> {
    let content;
    syn::parenthesized!(content in meta.input);
    let list = Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?;
    Ok(quote!(#list))
}

fn doc_of(attrs: &[Attribute]) -> String {
    let lines = attrs.iter().filter(|attr| attr.path().is_ident("doc")).filter_map(|attr| match &attr.meta {
        syn::Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn choice(item: &DeriveInput) -> Result<Tokens> {
    let name = &item.ident;
    let Data::Enum(data) = &item.data else { return Err(Error::new_spanned(name, "a choice is an enum")) };
    let mut idents = Vec::new();
    let mut names = Vec::new();
    for variant in &data.variants {
        let attr = variant.attrs.iter().find(|attr| attr.path().is_ident("choice"));
        names.push(match attr {
            Some(attr) => attr.parse_args::<LitStr>()?.value(),
            None => snake_case(&variant.ident.to_string()),
        });
        idents.push(&variant.ident);
    }
    Ok(quote! {
        impl #name {
            /// The words, in declaration order.
            pub const NAMES: &'static [&'static str] = &[#(#names),*];

            /// The word of this choice.
            pub fn name(&self) -> &'static str {
                match self { #(Self::#idents => #names),* }
            }
        }

        impl ::flow_graph::node::Field for #name {
            fn socket() -> ::flow_graph::Socket {
                ::flow_graph::Socket::Value(::flow_graph::spec::ValueKind::Choice(Self::NAMES))
            }

            fn from_arg(arg: ::std::option::Option<::flow_graph::node::Arg>) -> ::std::option::Option<Self> {
                match arg? {
                    ::flow_graph::node::Arg::Literal(::flow_graph::Literal::Text(word)) => match word.as_str() {
                        #(#names => ::std::option::Option::Some(Self::#idents),)*
                        _ => ::std::option::Option::None,
                    },
                    _ => ::std::option::Option::None,
                }
            }
        }
    })
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
