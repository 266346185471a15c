/* An empty module with the name of mpm_itk. */
#include <httpd.h>
#include <http_config.h>

module __attribute__((visibility("default"))) mpm_itk_module;

AP_DECLARE_MODULE(mpm_itk) = {.version = MODULE_MAGIC_NUMBER_MAJOR,
                              .minor_version = MODULE_MAGIC_NUMBER_MINOR,
                              .module_index = -1,
                              .name = __FILE__,
                              .magic = MODULE_MAGIC_COOKIE};
