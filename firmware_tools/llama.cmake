# Included by CMake after each project(). llama-cpp-python insists on llama.cpp's "common" library, half of the
# compilation, which nothing here loads; a variable of the directory hides the cached one.
set(LLAMA_BUILD_COMMON OFF)
