# Warnings, hardening and sanitizers: one interface target that every room links.
include(CheckCCompilerFlag)
add_library(mw_flags INTERFACE)
target_include_directories(mw_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(mw_flags INTERFACE _GNU_SOURCE MW_VERSION="${PROJECT_VERSION}")
target_compile_options(mw_flags INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wformat=2 -Wundef -Wvla -Walloca
  -Wcast-qual -Wpointer-arith -Wwrite-strings -Wstrict-prototypes -Wmissing-prototypes
  -Wold-style-definition -Wredundant-decls -Wimplicit-fallthrough -Wunused-result
  -Wdate-time -fno-common -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  # A message that is cut is a message; where a cut path would matter, the result of
  # snprintf is looked at, which gcc does not see.
  target_compile_options(mw_flags INTERFACE
    -Wduplicated-cond -Wduplicated-branches -Wlogical-op -Wno-format-truncation)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release" OR CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
  target_compile_options(mw_flags INTERFACE
    -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection
    -fcf-protection=full)
  target_link_options(mw_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack)
  set(CMAKE_POSITION_INDEPENDENT_CODE ON)
  target_link_options(mw_flags INTERFACE $<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-pie>)
endif()

set(MW_SANITIZE "" CACHE STRING "Sanitizers, e.g. address,undefined or thread")
if(MW_SANITIZE)
  target_compile_options(mw_flags INTERFACE
    -fsanitize=${MW_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(mw_flags INTERFACE -fsanitize=${MW_SANITIZE})
endif()
option(MW_COVERAGE "Build for coverage" OFF)
if(MW_COVERAGE)
  target_compile_options(mw_flags INTERFACE --coverage)
  target_link_options(mw_flags INTERFACE --coverage)
endif()
option(MW_FUZZ "Build libFuzzer targets (clang)" OFF)
if(MW_FUZZ)
  target_compile_options(mw_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
