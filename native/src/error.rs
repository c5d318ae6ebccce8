//! The one place where refused input becomes a Python error.

use std::borrow::Cow;

use pyo3::prelude::*;

/// Why and where input was refused; becomes `telflow.errors.DecodeError`.
///
/// Boxed, because it travels in the `Result` of every small reading function.
#[derive(Debug)]
pub struct ParseError(Box<Refusal>);

#[derive(Debug)]
struct Refusal {
    reason: Cow<'static, str>,
    offset: usize,
    /// From the innermost field outwards: the order in which returning callers learn of it.
    path: Vec<(Cow<'static, str>, Option<usize>)>,
}

impl ParseError {
    #[cold]
    pub fn new(reason: impl Into<Cow<'static, str>>, offset: usize) -> Self {
        Self(Box::new(Refusal {
            reason: reason.into(),
            offset,
            path: Vec::new(),
        }))
    }

    /// Say that it happened inside a field, and in which element of a repeated one.
    #[cold]
    pub fn inside(mut self, field: impl Into<Cow<'static, str>>, index: Option<usize>) -> Self {
        self.0.path.push((field.into(), index));
        self
    }

    /// The same place refused for another reason.
    #[cold]
    pub fn because(mut self, reason: impl Into<Cow<'static, str>>, offset: usize) -> Self {
        self.0.reason = reason.into();
        self.0.offset = offset;
        self
    }

    pub fn offset(&self) -> usize {
        self.0.offset
    }

    /// For example `resource_spans[0].scope_spans[1].spans[7].name`.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for (field, index) in self.0.path.iter().rev() {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(field);
            if let Some(index) = index {
                path.push_str(&format!("[{index}]"));
            }
        }
        path
    }
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} in {}", self.0.reason, self.path())
    }
}

impl From<ParseError> for PyErr {
    fn from(error: ParseError) -> Self {
        Python::attach(|py| {
            let path = error.path();
            let built = py
                .import("telflow.errors")
                .and_then(|errors| errors.getattr("DecodeError"))
                .and_then(|class| class.call1((error.0.reason.as_ref(), error.0.offset, path)));
            match built {
                Ok(exception) => PyErr::from_value(exception),
                Err(failure) => failure,
            }
        })
    }
}
