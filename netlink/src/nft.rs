//! nf_tables: a typed model of tables, chains, rules, sets and maps. Which rules there should be is not decided here.
