//! What user code may not say in the batch's transaction: begin, end, save or roll back; that is the batch's own.
//!
//! Refused here, before the database sees it. What hides from this look, as inside a procedure, meets the second line: a
//! COMMIT before the ledger row breaks a foreign key (`open_seq`), and the last statement is a checked one.

use crate::{
    config::StoreKind,
    error::{Error, Result},
};

/// Refuses a text with a statement that controls the transaction.
///
/// # Errors
/// [`ErrorKind::Transform`](crate::ErrorKind::Transform) naming the statement's first words, and nothing else of it.
pub(super) fn refuse_transaction_control(kind: StoreKind, sql: &str) -> Result<()> {
    let mut scan = Scan { kind, rest: sql };
    // Within `CREATE TRIGGER ... BEGIN ...; ...; END`, `END` ends the body and not the transaction.
    let mut in_body = false;
    loop {
        let first = match scan.next() {
            Token::End => return Ok(()),
            Token::Semicolon => continue,
            Token::Word(word) => word.to_ascii_uppercase(),
            Token::Other => String::new(),
        };
        if in_body && first == "END" {
            in_body = false;
        } else {
            let mut ahead = Scan { kind, rest: scan.rest };
            let second = if let Token::Word(word) = ahead.next() { word.to_ascii_uppercase() } else { String::new() };
            if let Some(statement) = forbidden(kind, &first, &second) {
                return Err(Error::transform(format!(
                    "user code's SQL may not control the transaction, which is the batch's: leave the statement out \
                     statement={statement:?}"
                )));
            }
        }
        loop {
            match scan.next() {
                Token::End => return Ok(()),
                Token::Semicolon => break,
                Token::Word(word) => in_body |= first == "CREATE" && word.eq_ignore_ascii_case("begin"),
                Token::Other => {}
            }
        }
    }
}

/// The statement's name, if user code may not say it.
fn forbidden(kind: StoreKind, first: &str, second: &str) -> Option<String> {
    let both = || Some(format!("{first} {second}"));
    match (first, second) {
        ("BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE", _) => {
            Some(first.to_owned())
        }
        ("PREPARE", "TRANSACTION") | ("SET", "TRANSACTION" | "SESSION") => both(),
        // They change the connection, or another file than the one that the batch is committed to.
        ("ATTACH" | "DETACH" | "PRAGMA", _) if kind == StoreKind::Sqlite => Some(first.to_owned()),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'s> {
    End,
    Semicolon,
    /// A keyword or a plain name.
    Word(&'s str),
    /// Anything else: a string, a quoted name, a number, a sign.
    Other,
}

/// Walks over SQL as either database reads it: where a string or a comment ends decides where a statement begins.
struct Scan<'s> {
    kind: StoreKind,
    rest: &'s str,
}

impl<'s> Scan<'s> {
    fn next(&mut self) -> Token<'s> {
        self.skip_blanks();
        let rest = self.rest;
        let Some(first) = rest.chars().next() else { return Token::End };
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
        match first {
            ';' => {
                self.rest = &rest[1..];
                Token::Semicolon
            }
            '\'' | '"' => self.quoted(first, false),
            '`' if self.kind == StoreKind::Sqlite => self.quoted('`', false),
            '[' if self.kind == StoreKind::Sqlite => {
                self.skip_past(rest, "]", 1);
                Token::Other
            }
            '$' if self.kind == StoreKind::Postgres => self.dollar_quoted(),
            c if is_word(c) && !c.is_ascii_digit() && c != '$' => {
                let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
                self.rest = &rest[end..];
                // E'...' is the one string in which a backslash escapes; other prefixes change nothing here.
                if self.kind == StoreKind::Postgres
                    && rest[..end].eq_ignore_ascii_case("e")
                    && self.rest.starts_with('\'')
                {
                    return self.quoted('\'', true);
                }
                Token::Word(&rest[..end])
            }
            other => {
                self.rest = &rest[other.len_utf8()..];
                Token::Other
            }
        }
    }

    fn skip_blanks(&mut self) {
        loop {
            // A byte order mark counts as blank for SQLite, and is none of a statement's words anyway.
            self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            if self.rest.starts_with("--") {
                self.rest = self.rest.find(['\n', '\r']).map_or("", |end| &self.rest[end..]);
            } else if self.rest.starts_with("/*") {
                self.skip_comment();
            } else {
                return;
            }
        }
    }

    /// A block comment; PostgreSQL's nest.
    fn skip_comment(&mut self) {
        let mut depth = 1;
        self.rest = &self.rest[2..];
        while depth > 0 {
            let Some(at) = self.rest.find(['*', '/']) else {
                self.rest = "";
                return;
            };
            let rest = &self.rest[at..];
            let nests = self.kind == StoreKind::Postgres;
            self.rest = match (rest.strip_prefix("*/"), rest.strip_prefix("/*")) {
                (Some(after), _) => {
                    depth -= 1;
                    after
                }
                (None, Some(after)) if nests => {
                    depth += 1;
                    after
                }
                _ => &rest[1..],
            };
        }
    }

    fn skip_past(&mut self, text: &'s str, end: &str, from: usize) {
        self.rest = text[from..].find(end).map_or("", |at| &text[from + at + end.len()..]);
    }

    /// A string or a quoted name; a doubled quote is one of its characters.
    fn quoted(&mut self, quote: char, escapes: bool) -> Token<'s> {
        let mut characters = self.rest[1..].char_indices();
        while let Some((at, c)) = characters.next() {
            let after = &self.rest[1 + at + c.len_utf8()..];
            if c == '\\' && escapes {
                characters.next();
            } else if c == quote {
                if !after.starts_with(quote) {
                    self.rest = after;
                    return Token::Other;
                }
                characters.next();
            }
        }
        self.rest = "";
        Token::Other
    }

    /// `$tag$ ... $tag$`, or a parameter such as `$1`.
    fn dollar_quoted(&mut self) -> Token<'s> {
        let rest = self.rest;
        let tag_end = rest[1..].find(|c: char| !(c.is_alphanumeric() || c == '_' || !c.is_ascii())).map(|at| at + 1);
        match tag_end {
            Some(end) if rest[end..].starts_with('$') && !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let tag = &rest[..=end];
                self.skip_past(rest, tag, end + 1);
            }
            _ => self.rest = &rest[1..],
        }
        Token::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [StoreKind; 2] = [StoreKind::Postgres, StoreKind::Sqlite];

    #[track_caller]
    fn refused(kind: StoreKind, sql: &str, statement: &str) {
        let error = refuse_transaction_control(kind, sql).expect_err(sql);
        assert!(error.to_string().ends_with(&format!("statement={statement:?}")), "{sql}: {error}");
        assert_eq!(error.kind().exit_code(), 6);
    }

    #[track_caller]
    fn allowed(kind: StoreKind, sql: &str) {
        assert!(refuse_transaction_control(kind, sql).is_ok(), "{kind:?}: {sql}");
    }

    #[test]
    fn every_statement_that_controls_the_transaction_is_refused() {
        for kind in BOTH {
            for (sql, statement) in [
                ("BEGIN", "BEGIN"),
                ("begin immediate", "BEGIN"),
                ("START TRANSACTION", "START"),
                ("COMMIT", "COMMIT"),
                ("commit and chain", "COMMIT"),
                ("COMMIT PREPARED 'x'", "COMMIT"),
                ("END", "END"),
                ("End Work", "END"),
                ("ROLLBACK", "ROLLBACK"),
                ("rollback to savepoint directstream_user_code", "ROLLBACK"),
                ("ROLLBACK TO directstream_user_code", "ROLLBACK"),
                ("ABORT", "ABORT"),
                ("SAVEPOINT mine", "SAVEPOINT"),
                ("RELEASE mine", "RELEASE"),
                ("RELEASE SAVEPOINT mine", "RELEASE"),
                ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
                ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION"),
                ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET SESSION"),
                ("set session authorization other", "SET SESSION"),
            ] {
                refused(kind, sql, statement);
            }
        }
    }

    #[test]
    fn sqlite_s_files_and_pragmas_are_refused_there_only() {
        for (sql, statement) in
            [("ATTACH 'other.db' AS o", "ATTACH"), ("detach o", "DETACH"), ("PRAGMA foreign_keys = off", "PRAGMA")]
        {
            refused(StoreKind::Sqlite, sql, statement);
            allowed(StoreKind::Postgres, sql);
        }
    }

    #[test]
    fn blanks_comments_and_empty_statements_hide_nothing() {
        for kind in BOTH {
            for sql in [
                " \t\r\n COMMIT",
                "-- a comment\nCOMMIT",
                "-- one\r\n-- two\n  COMMIT",
                "/* a */ /* b */COMMIT",
                "/* COMMIT; */ commit/* */;",
                "; ;COMMIT",
                "COMMIT;",
                "\u{feff}COMMIT",
                "COMMIT--",
                "INSERT INTO t VALUES (1); COMMIT",
                "INSERT INTO t VALUES ('it''s; fine'); -- ;\n COMMIT",
                "INSERT INTO \"a;\"\"b\" VALUES (1);COMMIT",
                "SELECT 'a\\'; COMMIT; --'",
                "SELECT 1 /* ' */; COMMIT",
            ] {
                refused(kind, sql, "COMMIT");
            }
        }
        refused(StoreKind::Postgres, "/* outer /* inner */ still outer */ COMMIT", "COMMIT");
        refused(StoreKind::Postgres, "SELECT $$;$$; COMMIT", "COMMIT");
        refused(StoreKind::Postgres, "SELECT $a$ $$; $a$ ; COMMIT", "COMMIT");
        refused(StoreKind::Postgres, "SELECT E'\\''; COMMIT", "COMMIT");
        refused(StoreKind::Postgres, "SELECT a$b$ FROM t; COMMIT; SELECT a$b$", "COMMIT");
        refused(StoreKind::Postgres, "PREPARE /* x */ TRANSACTION 'x'", "PREPARE TRANSACTION");
        refused(StoreKind::Sqlite, "/* outer /* inner */ COMMIT", "COMMIT");
        refused(StoreKind::Sqlite, "SELECT [a;], `b;`; COMMIT", "COMMIT");
        refused(StoreKind::Sqlite, "SELECT $1; COMMIT", "COMMIT");
    }

    #[test]
    fn the_same_words_elsewhere_are_allowed() {
        for kind in BOTH {
            for sql in [
                "",
                " ;; -- COMMIT",
                "INSERT INTO commits VALUES ($1, $2)",
                "UPDATE t SET note = 'COMMIT; ROLLBACK' WHERE id = $1",
                "SELECT CASE WHEN true THEN 1 END; SELECT 2",
                "SELECT \"commit\" FROM t -- ; COMMIT",
                "SELECT 1 /* ; COMMIT */",
                "DELETE FROM t; INSERT INTO t VALUES (1)",
                "SET CONSTRAINTS ALL DEFERRED",
                "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
            ] {
                allowed(kind, sql);
            }
        }
        allowed(StoreKind::Postgres, "DO $$ BEGIN PERFORM 1; COMMIT; END $$");
        allowed(StoreKind::Postgres, "PREPARE mine AS SELECT 1");
        allowed(StoreKind::Postgres, "SELECT E'\\'; COMMIT'");
        allowed(StoreKind::Postgres, "SELECT $a$; COMMIT; $a$");
    }

    #[test]
    fn the_body_of_a_trigger_has_its_own_end_and_hides_nothing() {
        let trigger =
            "CREATE TRIGGER x AFTER INSERT ON t BEGIN UPDATE t SET n = CASE WHEN 1 THEN 2 END; DELETE FROM u; END";
        allowed(StoreKind::Sqlite, trigger);
        allowed(StoreKind::Sqlite, &format!("{trigger}; SELECT 1"));
        refused(StoreKind::Sqlite, &format!("{trigger}; COMMIT"), "COMMIT");
        refused(StoreKind::Sqlite, &format!("{trigger}; END"), "END");
        refused(StoreKind::Sqlite, "CREATE TABLE begin (x); ROLLBACK", "ROLLBACK");
        allowed(StoreKind::Postgres, "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END");
    }
}
