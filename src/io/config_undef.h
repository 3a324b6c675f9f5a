// Clears the row macros of config.def after an expansion. Included without a guard, once per expansion.
#undef PB_SECTION
#undef PB_GROUP_BEGIN
#undef PB_GROUP_END
#undef PB_STRING
#undef PB_PATH
#undef PB_BOOL
#undef PB_INT
#undef PB_MAYBE_INT
#undef PB_REAL
#undef PB_MAYBE_REAL
#undef PB_COUNT
#undef PB_SIZE
#undef PB_ENUM
#undef PB_NAME
#undef PB_INERT
#undef PB_REFUSED
