pub fn dump(_f: &crate::ast::File) -> String { String::new() }
