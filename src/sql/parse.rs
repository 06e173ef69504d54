//! Tokens to a syntax tree: recursive descent, operators by how tightly they bind.
//!
//! Nesting is counted where it is entered and where a tree grows to the left, so no tree is deeper
//! than [`DEPTH_MAX`] expressions; chains of AND and OR are flat.

use regex_lite::Regex;

use super::DEPTH_MAX;
use super::error::{Mistake, SyntaxError};
use super::functions;
use super::program::Program;
use super::query::{Aggregate, Column, Query, Shows};
use super::syntax::{
    Arithmetic, Call, Case, Comparison, Expression, Field, Literal, Path, Statement, Step, binding,
};
use super::token::{Keyword, Token, error_at, tokens};
use crate::mqtt::topic;

/// Parses a rule.
pub(super) fn parse(text: &str) -> Result<Program, SyntaxError> {
    let mut parser = Parser {
        text,
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
    };
    parser.program()
}

/// Parses a query.
pub(super) fn query(text: &str) -> Result<Query, SyntaxError> {
    let mut parser = Parser {
        text,
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
    };
    parser.query()
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token<'a>, usize)>,
    next: usize,
    depth: u8,
}

/// A tree and how deep it is.
type Tree = (Expression, u8);

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.ahead(0)
    }

    fn ahead(&self, by: usize) -> Token<'a> {
        let token = self.tokens.get(self.next + by);
        token.map_or(Token::End, |(token, _)| *token)
    }

    fn advance(&mut self) {
        self.next += 1;
    }

    fn error(&self, why: Mistake) -> SyntaxError {
        let offset = self.tokens.get(self.next).or(self.tokens.last());
        error_at(self.text, offset.map_or(0, |(_, offset)| *offset), why)
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, SyntaxError> {
        let from = self.tokens.get(self.next).map_or(0, |(_, offset)| *offset);
        let found = self.text.get(from..).unwrap_or_default();
        let length = match self.peek() {
            Token::Word(_) | Token::Name(_) => found
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(found.len()),
            Token::Sign(sign) => sign.len(),
            _ => found.find(char::is_whitespace).unwrap_or(found.len()),
        };
        let found = found.get(..length).unwrap_or_default();
        let found: String = found.chars().take(40).collect();
        let found = found.into();
        Err(self.error(Mistake::Expected { expected, found }))
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        let taken = matches!(self.peek(), Token::Sign(found) if found == sign);
        self.next += usize::from(taken);
        taken
    }

    fn sign(&mut self, sign: &str, expected: &'static str) -> Result<(), SyntaxError> {
        if self.takes_sign(sign) {
            return Ok(());
        }
        self.expected(expected)
    }

    fn takes_word(&mut self, word: Keyword) -> bool {
        let taken = self.peek() == Token::Word(word);
        self.next += usize::from(taken);
        taken
    }

    fn program(&mut self) -> Result<Program, SyntaxError> {
        let statement = if self.takes_word(Keyword::Select) {
            Statement::Select(self.fields()?)
        } else if self.takes_word(Keyword::Foreach) {
            let fields = self.fields()?;
            if matches!(fields.last(), Some(Field::All)) {
                return self.expected("a collection, not *, as the last of FOREACH");
            }
            let each = self.takes_word(Keyword::Do);
            let each = each.then(|| self.fields()).transpose()?;
            let only = self.takes_word(Keyword::InCase);
            let only = only.then(|| self.expression()).transpose()?;
            Statement::Foreach { fields, each, only }
        } else {
            return self.expected("SELECT or FOREACH");
        };
        if !self.takes_word(Keyword::From) {
            return self.expected(match statement {
                Statement::Select(_) => "FROM, AS or an operator",
                Statement::Foreach { .. } => "DO, INCASE, FROM, AS or an operator",
            });
        }
        let mut from = vec![self.source()?];
        while self.takes_sign(",") {
            from.push(self.source()?);
        }
        let filter = self.takes_word(Keyword::Where);
        let filter = filter.then(|| self.expression()).transpose()?;
        if self.peek() != Token::End {
            return self.expected(match filter {
                None => "WHERE or the end",
                Some(_) => "an operator or the end",
            });
        }
        Ok(Program::new(statement, from.into(), filter))
    }

    /// Takes a word that is reserved in queries alone.
    fn takes_name(&mut self, word: &str) -> bool {
        let taken = matches!(self.peek(), Token::Name(name) if name.eq_ignore_ascii_case(word));
        self.next += usize::from(taken);
        taken
    }

    fn query(&mut self) -> Result<Query, SyntaxError> {
        if !self.takes_word(Keyword::Select) {
            return self.expected("SELECT");
        }
        let mut columns = vec![self.query_column()?];
        while self.takes_sign(",") {
            columns.push(self.query_column()?);
        }
        if !self.takes_word(Keyword::From) {
            return self.expected("FROM, AS or an operator");
        }
        let (Token::Name(table) | Token::Quoted(table)) = self.peek() else {
            return self.expected("a table");
        };
        self.advance();
        let filter = self.takes_word(Keyword::Where);
        let filter = filter.then(|| self.expression()).transpose()?;
        let mut group = Vec::new();
        if self.takes_name("group") {
            self.by()?;
            group.push(self.expression()?);
            while self.takes_sign(",") {
                group.push(self.expression()?);
            }
        }
        let (mut order, mut hides) = (None, false);
        if self.takes_name("order") {
            self.by()?;
            let at = self.next;
            let wanted = self.query_column()?;
            let sums = |column: &Column| matches!(column.shows, Shows::Aggregate(..));
            let column = columns.iter().position(|column| column.name == wanted.name);
            if column.is_none() && sums(&wanted) && group.is_empty() && !columns.iter().any(sums) {
                self.next = at;
                return self.expected("a column, or GROUP BY before it");
            }
            let descending = self.takes_name("desc");
            if !descending {
                self.takes_name("asc");
            }
            order = Some((column.unwrap_or(columns.len()), descending));
            if column.is_none() {
                columns.push(wanted);
                hides = true;
            }
        }
        let mut limit = None;
        if self.takes_name("limit") {
            let Token::Int(rows) = self.peek() else {
                return self.expected("a number of rows");
            };
            self.advance();
            limit = usize::try_from(rows).ok();
        }
        if self.peek() != Token::End {
            return self.expected("GROUP BY, ORDER BY, LIMIT or the end");
        }
        Ok(Query {
            columns: columns.into(),
            table: table.into(),
            filter,
            group: group.into(),
            order,
            hides,
            limit,
        })
    }

    fn by(&mut self) -> Result<(), SyntaxError> {
        if self.takes_name("by") {
            return Ok(());
        }
        self.expected("BY")
    }

    /// A column of a query, with its alias.
    fn query_column(&mut self) -> Result<Column, SyntaxError> {
        if self.takes_sign("*") {
            let name = "*".into();
            let shows = Shows::All;
            return Ok(Column { shows, name });
        }
        let aggregate = match self.peek() {
            Token::Name(name) if self.ahead(1) == Token::Sign("(") => Aggregate::of(name),
            _ => None,
        };
        let (shows, text) = match aggregate {
            Some(aggregate) => {
                self.next += 2;
                let all = aggregate == Aggregate::Count && self.takes_sign("*");
                let of = match all {
                    true => None,
                    false => Some(self.expression()?),
                };
                self.sign(")", ") or an operator")?;
                let inner = of.as_ref().map_or("*".to_owned(), ToString::to_string);
                let text = format!("{}({inner})", aggregate.name());
                (Shows::Aggregate(aggregate, of), text)
            }
            None => {
                let value = self.expression()?;
                let text = value.to_string();
                (Shows::Value(value), text)
            }
        };
        let named = self.takes_word(Keyword::As);
        let own = |name: &str| {
            let words = ["group", "order", "limit", "asc", "desc"];
            !words.iter().any(|word| name.eq_ignore_ascii_case(word))
        };
        let name = match self.peek() {
            Token::Quoted(name) => Some(name),
            Token::Name(name) if named || own(name) => Some(name),
            _ if named => return self.expected("a name"),
            _ => None,
        };
        self.next += usize::from(name.is_some());
        let name = name.unwrap_or(&text).into();
        Ok(Column { shows, name })
    }

    /// A name behind FROM.
    fn source(&mut self) -> Result<Box<str>, SyntaxError> {
        let (Token::Name(name) | Token::Quoted(name) | Token::Text(name)) = self.peek() else {
            return self.expected("a topic in double quotes");
        };
        // What prints in double quotes must not hold one.
        if !topic::is_filter(name) || name.contains('"') {
            return Err(self.error(Mistake::Topic(name.chars().take(80).collect())));
        }
        self.advance();
        Ok(name.into())
    }

    fn fields(&mut self) -> Result<Box<[Field]>, SyntaxError> {
        let mut fields = Vec::new();
        loop {
            fields.push(if self.takes_sign("*") {
                Field::All
            } else {
                let value = self.expression()?;
                let named = self.takes_word(Keyword::As);
                let target = if named || matches!(self.peek(), Token::Name(_) | Token::Quoted(_)) {
                    Some(self.path("a name")?)
                } else {
                    None
                };
                Field::One { value, target }
            });
            if !self.takes_sign(",") {
                return Ok(fields.into());
            }
        }
    }

    fn expression(&mut self) -> Result<Expression, SyntaxError> {
        self.tree(binding::OR).map(|(tree, _)| tree)
    }

    /// What binds at least as tightly as `tight`.
    fn tree(&mut self, tight: u8) -> Result<Tree, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(Mistake::TooDeep));
        }
        // Nothing that binds more tightly follows an operator's right side, but a second comparison.
        let mut last = match self.peek() {
            Token::Word(Keyword::Not) => binding::NOT,
            _ => binding::PRIMARY,
        };
        let (mut left, mut depth) = self.prefix()?;
        loop {
            let (operator, binds) = infix(self.peek(), self.ahead(1));
            let twice = binds == binding::COMPARISON && last == binding::COMPARISON;
            if binds == 0 || binds < tight || binds > last || twice {
                break;
            }
            last = binds;
            (left, depth) = self.infix(operator, binds, (left, depth))?;
            if depth > DEPTH_MAX {
                return Err(self.error(Mistake::TooDeep));
            }
        }
        self.depth -= 1;
        Ok((left, depth))
    }

    /// The rest of an operation whose left side is known.
    fn infix(
        &mut self,
        operator: Infix,
        binds: u8,
        (left, depth): Tree,
    ) -> Result<Tree, SyntaxError> {
        self.advance();
        if let Infix::Among(negated) = operator {
            self.next += usize::from(negated);
            self.sign("(", "( behind IN")?;
            if self.peek() == Token::Sign(")") {
                return self.expected("an element of IN");
            }
            let (list, below) = self.list(")", ") or , behind an element of IN")?;
            let value = Box::new(left);
            let among = Expression::Among {
                value,
                list,
                negated,
            };
            return Ok((among, depth.max(below) + 1));
        }
        let (right, below) = self.tree(binds + 1)?;
        let depth = depth.max(below) + 1;
        let tree = match operator {
            Infix::And | Infix::Or => {
                let mut all = vec![left, right];
                let word = if operator == Infix::And {
                    Keyword::And
                } else {
                    Keyword::Or
                };
                let mut deepest = depth;
                while self.takes_word(word) {
                    let (next, below) = self.tree(binds + 1)?;
                    deepest = deepest.max(below + 1);
                    all.push(next);
                }
                let all = all.into();
                let tree = match operator {
                    Infix::And => Expression::And(all),
                    _ => Expression::Or(all),
                };
                return Ok((tree, deepest));
            }
            Infix::Comparison(operator) => {
                Expression::Comparison(operator, Box::new((left, right)))
            }
            Infix::Arithmetic(operator) => {
                Expression::Arithmetic(operator, Box::new((left, right)))
            }
            Infix::Among(_) | Infix::None => return self.expected("an operator"),
        };
        Ok((tree, depth))
    }

    /// A value, or one behind an operator that stands before it.
    fn prefix(&mut self) -> Result<Tree, SyntaxError> {
        if self.takes_word(Keyword::Not) {
            let (of, depth) = self.tree(binding::NOT)?;
            return Ok((Expression::Not(Box::new(of)), depth + 1));
        }
        let negative = matches!(self.peek(), Token::Sign("-"));
        if negative || matches!(self.peek(), Token::Sign("+")) {
            self.advance();
            let (of, depth) = self.tree(binding::SIGN)?;
            return Ok(match of {
                Expression::Literal(Literal::Int(value)) => {
                    let value = if negative { -value } else { value };
                    (Expression::Literal(Literal::Int(value)), depth)
                }
                Expression::Literal(Literal::Float(value)) => {
                    let value = if negative { -value } else { value };
                    (Expression::Literal(Literal::Float(value)), depth)
                }
                of => (Expression::Signed(negative, Box::new(of)), depth + 1),
            });
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Tree, SyntaxError> {
        let called = self.ahead(1) == Token::Sign("(");
        let literal = match self.peek() {
            Token::Name(name) if called => return self.call(name),
            Token::Text(name) if called => return self.call(name),
            Token::Int(value) => Literal::Int(value),
            Token::Float(value) => Literal::Float(value),
            Token::Text(text) => Literal::Text(text.into()),
            Token::Name("true") => Literal::Bool(true),
            Token::Name("false") => Literal::Bool(false),
            Token::Name(_) | Token::Quoted(_) => return self.column(),
            Token::Word(Keyword::Case) => return self.case(),
            Token::Sign("(") => {
                self.advance();
                let tree = self.tree(binding::OR)?;
                self.sign(")", ") or an operator")?;
                return Ok(tree);
            }
            Token::Sign("[") => return self.list_or_range(),
            _ => return self.expected("a value"),
        };
        self.advance();
        Ok((Expression::Literal(literal), 1))
    }

    fn call(&mut self, name: &str) -> Result<Tree, SyntaxError> {
        let Some(function) = functions::find(name) else {
            let name = name.chars().take(80).collect();
            return Err(self.error(Mistake::UnknownFunction(name)));
        };
        let at = self.next;
        self.next += 2;
        let (arguments, depth) = self.list(")", ") or , behind an argument")?;
        let end = std::mem::replace(&mut self.next, at);
        let (min, max) = (usize::from(function.min), usize::from(function.max));
        if !(min..=max).contains(&arguments.len()) {
            let name = function.name;
            return Err(self.error(Mistake::Arguments { name, min, max }));
        }
        let mut pattern: Option<Regex> = None;
        if function.takes_pattern
            && let Some(Expression::Literal(Literal::Text(text))) = arguments.get(1)
        {
            let compiled = functions::pattern(text);
            pattern = Some(compiled.map_err(|_| self.error(Mistake::Pattern))?);
        }
        self.next = end;
        let call = Call {
            function,
            arguments,
            pattern,
        };
        Ok((Expression::Call(Box::new(call)), depth + 1))
    }

    /// Expressions up to `end`, perhaps none.
    fn list(
        &mut self,
        end: &str,
        expected: &'static str,
    ) -> Result<(Box<[Expression]>, u8), SyntaxError> {
        let mut items = Vec::new();
        let mut deepest = 0;
        if self.takes_sign(end) {
            return Ok((items.into(), deepest));
        }
        loop {
            let (item, depth) = self.tree(binding::OR)?;
            items.push(item);
            deepest = deepest.max(depth);
            if self.takes_sign(end) {
                return Ok((items.into(), deepest));
            }
            self.sign(",", expected)?;
        }
    }

    fn list_or_range(&mut self) -> Result<Tree, SyntaxError> {
        self.advance();
        let at = self.next;
        if let Some(from) = self.takes_integer()
            && self.takes_sign("..")
        {
            let to = self.range_end()?;
            return Ok((Expression::Range(from, to), 1));
        }
        self.next = at;
        let (items, depth) = self.list("]", "] or , behind an element")?;
        Ok((Expression::List(items), depth + 1))
    }

    fn range_end(&mut self) -> Result<i64, SyntaxError> {
        let Some(to) = self.takes_integer() else {
            return self.expected("an integer behind ..");
        };
        self.sign("]", "] behind a range")?;
        Ok(to)
    }

    fn takes_integer(&mut self) -> Option<i64> {
        let at = self.next;
        let negative = self.takes_sign("-");
        let Token::Int(value) = self.peek() else {
            self.next = at;
            return None;
        };
        self.advance();
        Some(if negative { -value } else { value })
    }

    fn case(&mut self) -> Result<Tree, SyntaxError> {
        self.advance();
        let mut deepest = 0;
        let mut subject = None;
        if self.peek() != Token::Word(Keyword::When) {
            let (tree, depth) = self.tree(binding::OR)?;
            subject = Some(tree);
            deepest = depth;
        }
        let mut arms = Vec::new();
        while self.takes_word(Keyword::When) {
            let (when, depth) = self.tree(binding::OR)?;
            if !self.takes_word(Keyword::Then) {
                return self.expected("THEN or an operator");
            }
            let (then, below) = self.tree(binding::OR)?;
            deepest = deepest.max(depth).max(below);
            arms.push((when, then));
        }
        if arms.is_empty() {
            return self.expected("WHEN");
        }
        let mut otherwise = None;
        if self.takes_word(Keyword::Else) {
            let (tree, depth) = self.tree(binding::OR)?;
            otherwise = Some(tree);
            deepest = deepest.max(depth);
        }
        if !self.takes_word(Keyword::End) {
            return self.expected("WHEN, ELSE, END or an operator");
        }
        let arms = arms.into();
        let case = Case {
            subject,
            arms,
            otherwise,
        };
        Ok((Expression::Case(Box::new(case)), deepest + 1))
    }

    /// A path, or a part of the list that it leads to.
    fn column(&mut self) -> Result<Tree, SyntaxError> {
        let path = self.path("a name")?;
        if !matches!(self.peek(), Token::Sign("[")) {
            return Ok((Expression::Path(path), 1));
        }
        self.advance();
        let (Some(from), true) = (self.takes_integer(), self.takes_sign("..")) else {
            return self.expected("an index or a range");
        };
        let to = self.range_end()?;
        if matches!(self.peek(), Token::Sign("." | "[")) {
            return self.expected("no more of a path behind a range");
        }
        Ok((Expression::Slice(Box::new(path), from, to), 1))
    }

    fn path(&mut self, expected: &'static str) -> Result<Path, SyntaxError> {
        let (Token::Name(root) | Token::Quoted(root)) = self.peek() else {
            return self.expected(expected);
        };
        if root.is_empty() {
            return self.expected(expected);
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(Mistake::TooDeep));
        }
        self.advance();
        let mut steps = Vec::new();
        loop {
            if self.takes_sign(".") {
                steps.push(self.key()?);
            } else if matches!(self.peek(), Token::Sign("[")) {
                let at = self.next;
                let Some(step) = self.index()? else {
                    self.next = at;
                    break;
                };
                steps.push(step);
            } else {
                break;
            }
            if steps.len() > usize::from(DEPTH_MAX) {
                return Err(self.error(Mistake::TooDeep));
            }
        }
        self.depth -= 1;
        let (root, steps) = (root.into(), steps.into());
        Ok(Path { root, steps })
    }

    fn key(&mut self) -> Result<Step, SyntaxError> {
        let key = match self.peek() {
            Token::Name(key) | Token::Quoted(key) | Token::Text(key) => key.into(),
            Token::Int(key) => key.to_string().into(),
            // Behind a point no word is reserved.
            Token::Word(_) => {
                let at = self.tokens.get(self.next).map_or(0, |(_, offset)| *offset);
                let word = self.text.get(at..).unwrap_or_default();
                let end = word.find(|c: char| !c.is_ascii_alphabetic());
                word.get(..end.unwrap_or(word.len()))
                    .unwrap_or_default()
                    .into()
            }
            _ => return self.expected("a key"),
        };
        self.advance();
        Ok(Step::Key(key))
    }

    /// `[n]` or `[path]`; `None` before a range.
    fn index(&mut self) -> Result<Option<Step>, SyntaxError> {
        self.advance();
        let negative = matches!(self.peek(), Token::Sign("-"));
        let step = if let Some(index) = self.takes_integer() {
            if matches!(self.peek(), Token::Sign("..")) {
                return Ok(None);
            }
            match index {
                0 if negative => Step::End,
                _ => Step::At(index),
            }
        } else {
            Step::By(self.path("an index or a name")?)
        };
        self.sign("]", "]")?;
        Ok(Some(step))
    }
}

/// What stands between two values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Infix {
    And,
    Or,
    Comparison(Comparison),
    Arithmetic(Arithmetic),
    /// `NOT IN` when true.
    Among(bool),
    None,
}

/// The operator that two tokens begin, and how tightly it binds: 0 for none.
fn infix(token: Token<'_>, after: Token<'_>) -> (Infix, u8) {
    let comparison = |operator| (Infix::Comparison(operator), binding::COMPARISON);
    let arithmetic = |operator: Arithmetic| (Infix::Arithmetic(operator), operator.binding());
    match token {
        Token::Word(Keyword::Or) => (Infix::Or, binding::OR),
        Token::Word(Keyword::And) => (Infix::And, binding::AND),
        Token::Word(Keyword::In) => (Infix::Among(false), binding::COMPARISON),
        Token::Word(Keyword::Not) if after == Token::Word(Keyword::In) => {
            (Infix::Among(true), binding::COMPARISON)
        }
        Token::Sign("=") => comparison(Comparison::Equal),
        Token::Sign("!=" | "<>") => comparison(Comparison::Unequal),
        Token::Sign("<") => comparison(Comparison::Less),
        Token::Sign(">") => comparison(Comparison::Greater),
        Token::Sign("<=") => comparison(Comparison::AtMost),
        Token::Sign(">=") => comparison(Comparison::AtLeast),
        Token::Sign("=~") => comparison(Comparison::Topic),
        Token::Sign("+") => arithmetic(Arithmetic::Add),
        Token::Sign("-") => arithmetic(Arithmetic::Subtract),
        Token::Sign("*") => arithmetic(Arithmetic::Multiply),
        Token::Sign("/") => arithmetic(Arithmetic::Divide),
        Token::Name("div") => arithmetic(Arithmetic::Div),
        Token::Name("mod") => arithmetic(Arithmetic::Mod),
        _ => (Infix::None, 0),
    }
}
