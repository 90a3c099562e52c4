//! Finds the imports of one file, however they are written, and judges them by the table of `layering`.

use syn::{
    Attribute, ExprPath, Ident, ItemExternCrate, ItemMod, ItemUse, LitStr, Macro, Meta, Token,
    UseTree, VisRestricted,
    ext::IdentExt,
    parse::{ParseStream, Parser},
    token,
    visit::{self, Visit},
};

use super::{ALL, MAY_IMPORT};

/// What is wrong in a file that stands at `place` (`["gateway", "auth"]`) of the module tree.
pub(super) fn violations(place: &[String], code: &str) -> Vec<String> {
    let file = match syn::parse_file(code) {
        Ok(file) => file,
        Err(error) => return vec![format!("does not parse: {error}")],
    };
    let owner = owner(place);
    // The two crate roots stand at the top of the tree; every other file below its module.
    let here = if owner == "lib" || owner == "main" {
        Vec::new()
    } else {
        place.to_vec()
    };
    let allowed = MAY_IMPORT
        .iter()
        .find(|(name, _)| *name == owner)
        .map(|(_, allowed)| *allowed);
    let Some(allowed) = allowed else {
        return vec![format!("`{owner}` is not in the table")];
    };
    let mut checker = Checker {
        owner,
        here,
        allowed,
        problems: Vec::new(),
    };
    checker.visit_file(&file);
    checker.problems
}

struct Checker {
    owner: String,
    /// The module that the visitor is in.
    here: Vec<String>,
    allowed: &'static [&'static str],
    problems: Vec<String>,
}

impl Checker {
    /// Judges one path, as written. `names` is false where the path alone imports nothing (`self`, `pub(crate)`).
    fn path(&mut self, segments: &[String]) {
        let shown = segments.join("::");
        match self.resolve(segments) {
            None => {}
            Some(absolute) => match absolute.first() {
                None => self.problems.push(format!(
                    "`{shown}` names the crate root, which hides what is imported"
                )),
                Some(top) if *top == self.owner || self.allowed.contains(&top.as_str()) => {}
                Some(top) => self.problems.push(format!(
                    "`{shown}`: `{}` may not import `{top}` (only: {})",
                    self.owner,
                    self.allowed.join(", ")
                )),
            },
        }
    }

    /// The path from the crate root, or nothing if it starts elsewhere (another crate, a local name).
    fn resolve(&self, segments: &[String]) -> Option<Vec<String>> {
        let (mut absolute, rest) = match segments.first()?.as_str() {
            "crate" | "cde_gateway" => (Vec::new(), &segments[1..]),
            "self" | "super" => (self.here.clone(), segments),
            first if self.here.is_empty() && ALL.contains(&first) => (Vec::new(), segments),
            _ => return None,
        };
        for segment in rest {
            match segment.as_str() {
                "self" | "*" => {}
                "super" => drop(absolute.pop()),
                name => absolute.push(name.to_owned()),
            }
        }
        Some(absolute)
    }

    fn tree(&mut self, tree: &UseTree, prefix: &mut Vec<String>) {
        let depth = prefix.len();
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.unraw().to_string());
                self.tree(&path.tree, prefix);
            }
            UseTree::Name(name) => {
                prefix.push(name.ident.unraw().to_string());
                self.path(prefix);
            }
            UseTree::Rename(rename) => {
                prefix.push(rename.ident.unraw().to_string());
                self.path(prefix);
            }
            UseTree::Glob(_) => {
                prefix.push("*".into());
                self.path(prefix);
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item, prefix)),
        }
        prefix.truncate(depth);
    }

    /// Looks for paths among the tokens of a macro or an attribute; strings count only in attributes.
    fn tokens(&mut self, input: ParseStream<'_>, strings: bool) -> syn::Result<()> {
        while !input.is_empty() {
            if starts_path(input) {
                self.token_path(input, &mut Vec::new())?;
            } else if input.peek(token::Brace)
                || input.peek(token::Paren)
                || input.peek(token::Bracket)
            {
                let content = group(input)?;
                self.tokens(&content, strings)?;
            } else if strings && input.peek(LitStr) {
                let text: LitStr = input.parse()?;
                if let Ok(path) = text.parse::<ExprPath>() {
                    self.visit_path(&path.path);
                }
            } else {
                skip(input)?;
            }
        }
        Ok(())
    }

    /// One path among tokens, with `{…}` groups in it as in a `use`.
    fn token_path(&mut self, input: ParseStream<'_>, prefix: &mut Vec<String>) -> syn::Result<()> {
        let depth = prefix.len();
        loop {
            if input.peek(Ident::peek_any) {
                prefix.push(input.call(Ident::parse_any)?.unraw().to_string());
            } else if input.peek(token::Brace) {
                let content = group(input)?;
                while !content.is_empty() {
                    if content.peek(Ident::peek_any) {
                        self.token_path(&content, prefix)?;
                    } else {
                        skip(&content)?;
                    }
                }
                break;
            } else {
                self.path(prefix);
                break;
            }
            if !input.peek(Token![::]) {
                self.path(prefix);
                break;
            }
            input.parse::<Token![::]>()?;
        }
        prefix.truncate(depth);
        Ok(())
    }
}

impl<'ast> Visit<'ast> for Checker {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.unraw().to_string())
            .collect();
        if segments.len() > 1 {
            self.path(&segments);
        }
        visit::visit_path(self, path);
    }

    /// `pub(in …)` names ancestors only.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item
            .attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("path"))
        {
            self.problems.push(format!(
                "`#[path] mod {}` takes a file from elsewhere",
                item.ident
            ));
        }
        self.here.push(item.ident.unraw().to_string());
        visit::visit_item_mod(self, item);
        self.here.pop();
    }

    fn visit_item_extern_crate(&mut self, item: &'ast ItemExternCrate) {
        if item.ident == "self" {
            self.problems
                .push("`extern crate self` renames the crate root".into());
        }
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        visit::visit_macro(self, item);
        if item.path.is_ident("include") {
            self.problems
                .push("`include!` takes code from elsewhere".into());
        }
        let scan = |input: ParseStream<'_>| self.tokens(input, false);
        scan.parse2(item.tokens.clone())
            .expect("tokens of a parsed file can be walked");
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        visit::visit_attribute(self, attribute);
        if let Meta::List(list) = &attribute.meta {
            let scan = |input: ParseStream<'_>| self.tokens(input, true);
            scan.parse2(list.tokens.clone())
                .expect("tokens of a parsed file can be walked");
        }
    }
}

fn starts_path(input: ParseStream<'_>) -> bool {
    let word = input
        .fork()
        .call(Ident::parse_any)
        .map(|word| word.to_string());
    matches!(
        word.as_deref(),
        Ok("crate" | "self" | "super" | "cde_gateway")
    ) && input.peek2(Token![::])
}

fn group<'a>(input: ParseStream<'a>) -> syn::Result<syn::parse::ParseBuffer<'a>> {
    let content;
    if input.peek(token::Brace) {
        syn::braced!(content in input);
    } else if input.peek(token::Paren) {
        syn::parenthesized!(content in input);
    } else {
        syn::bracketed!(content in input);
    }
    Ok(content)
}

fn skip(input: ParseStream<'_>) -> syn::Result<()> {
    input.step(|cursor| {
        cursor
            .token_tree()
            .map(|(_, rest)| ((), rest))
            .ok_or_else(|| cursor.error("the end"))
    })
}

/// The module that answers for a file: the first part of its place.
pub(super) fn owner(place: &[String]) -> String {
    place.first().cloned().unwrap_or_else(|| "lib".into())
}
